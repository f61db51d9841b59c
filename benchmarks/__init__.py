"""How fast is ddlib, beside the way the field's code does the same, and beside what the machine could do at best?"""

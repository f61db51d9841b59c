"""What pages show of the study: plans, findings and what they say in words, tables, cards and charts. No extensions."""

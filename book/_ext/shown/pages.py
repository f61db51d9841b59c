"""What a page takes beside its text: data for its scripts, and files that are written with it."""

import json

Files = dict[str, str | bytes]  # path below the pages -> what the file holds
PICTURES, RECORDS = "pictures", "records"  # folders there


def as_script(data: object) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")

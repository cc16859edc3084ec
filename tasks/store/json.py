"""What plain JSON is called here; apart from all else, so that what needs no more starts at once."""

from typing import Any

JSON = dict[str, Any]

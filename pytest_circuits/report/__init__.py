"""Results as text and as JSON, from records only; and how far long work is."""

from .json import result_as_dict, result_document, result_from_dict, write_json
from .terminal import Line, budget_line, failure_text, summary_table

__all__ = [
    "Line",
    "budget_line",
    "failure_text",
    "result_as_dict",
    "result_document",
    "result_from_dict",
    "summary_table",
    "write_json",
]

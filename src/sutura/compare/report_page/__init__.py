"""`report.html`: one self-contained page over the same ledgers as report.md."""

from sutura.compare.report_page.page import LARGEST, inputs_of, write_page
from sutura.compare.report_page.pictures import Pictures
from sutura.compare.report_page.view import View

__all__ = ["LARGEST", "Pictures", "View", "inputs_of", "write_page"]

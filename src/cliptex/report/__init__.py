"""Tables, figures, comparisons and the HTML page, made from result rows alone; never torch."""

from cliptex.report.page import write_report as write_report

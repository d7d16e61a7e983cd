"""The audit report: one JSON record, one HTML page drawn from it, and the check that both agree with the scores.

Rooms: ``schema`` (what a report holds), ``numbers`` (recordings by number instead of name), ``checks`` (how this
procedure behaves at this size), ``words`` (the sentences), ``html`` (the page), ``folder`` (files on disk), ``verify``.
"""

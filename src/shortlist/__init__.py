"""shortlist: two-tower retrieval, from a log of choices to a published, searchable version."""

__version__ = "0.1.0"

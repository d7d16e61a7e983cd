"""Model families behind two small protocols."""

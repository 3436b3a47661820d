"""What draws on a page: parts that several pages, or one long page, are made of."""

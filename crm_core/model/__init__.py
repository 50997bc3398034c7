"""The nouns: entities and fields, records and links, filters and mappings. No I/O, no clock."""

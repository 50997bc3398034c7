"""The steps by which a batch comes into the records: reading, looking, and finding which record a row leads to."""

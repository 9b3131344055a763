"""Facts: tables and files of them, the documents that state them and the questions that ask for them."""

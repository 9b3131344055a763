"""NAMMs on disk and on the Hugging Face hub: folders of numbers, a description and a card, and where they are found."""

"""The best adapter on the Hugging Face Hub: upload, model card, and the card's script."""

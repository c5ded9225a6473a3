"""The book: chapters and solved labs as static pages that ask nothing of the outside."""

"""The Avalanche side: plugins."""

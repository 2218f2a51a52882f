"""The Avalanche side: plugins for its strategies."""

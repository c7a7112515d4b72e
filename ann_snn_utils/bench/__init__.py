"""The benchmark and its contenders."""

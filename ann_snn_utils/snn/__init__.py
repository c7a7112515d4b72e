"""The integer network as data: thresholds from batch norm, conversion, certificate, file."""

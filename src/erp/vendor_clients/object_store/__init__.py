"""What object stores have in common: names, metadata, failures, content as streams, uploads in parts."""

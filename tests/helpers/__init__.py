"""What several tests share: stand-in models, small applications, a server that records, and judges of answers."""

"""What became of each record: the two report files, and the audit that proves them."""

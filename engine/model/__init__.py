"""The words of the engine as frozen values: records, batches, submissions, outcomes, errors. No I/O."""

"""The values of the engine: job, record, batch, submission, outcome, settings, errors. No I/O."""

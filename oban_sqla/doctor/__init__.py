"""The doctor: find out why jobs don't run, or will stop running, and name remedies."""

"""The monitor: read the state of nodes, queues, cron and jobs."""

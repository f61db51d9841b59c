"""The study: arms, runs, records, statistics, tables and figures. The core knows nothing of it."""

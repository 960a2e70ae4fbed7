-- How many letters wait is asked every second, whatever became of all the others.
CREATE INDEX dead_letters_open ON dead_letters (failed_at) WHERE status = 'dead';

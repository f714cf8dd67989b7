"""What is done to jobs from outside their attempts: cancelled, paused, resumed, held back for others."""

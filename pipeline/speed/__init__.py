"""How fast it is: the student, the job, and what they are compared with."""

"""What `manage.py doctor` looks at: one module for each family of checks, and what runs and tells them."""

"""Gates, decisions, promotion, rollback and deployment: which model serves, and why."""

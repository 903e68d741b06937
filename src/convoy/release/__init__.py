"""Gates, decisions, promotion, rollback and deployment: which model is deployed, and why."""

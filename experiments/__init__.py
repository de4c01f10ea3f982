"""The harness: specs, plan, execution, tracking."""

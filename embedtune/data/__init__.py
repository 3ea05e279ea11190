"""Reading and checking data: one reader per format."""

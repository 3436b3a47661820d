"""Results in words: verdict, model cards, summary, scorecard, leaderboard."""

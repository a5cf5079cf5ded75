"""The dialects: records become requests, replies become outcomes. They know nothing of journals and retries."""

"""Seven Bridges' API v2: drafts, batch tasks with children, files and apps enter as requests, its answers leave."""

"""Work that is done once, beside the service: replays."""

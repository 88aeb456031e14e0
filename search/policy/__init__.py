"""What a search does next: functions of its history, the constraints and the clock; nothing here tries or trains."""

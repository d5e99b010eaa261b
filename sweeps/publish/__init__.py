"""What a sweep found, for people: summary, report, model card, demo page, the Hub."""

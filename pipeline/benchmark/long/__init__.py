"""Long recordings: shot cuts, what windows cost, who is found again (`vsdmot measure`)."""

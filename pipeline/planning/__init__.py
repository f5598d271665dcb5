"""`vsdmot plan`: what a run of `vsdmot track` would do, take and cost, before it is begun."""

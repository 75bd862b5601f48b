"""What `make align` leaves: its parameters, its folder, the report, the comparison."""

"""Version 1 of the contract. Generated modules lie beside their `.proto` files."""

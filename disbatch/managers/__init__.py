"""Where contexts get nodes from, and how engines are started there: what differs between resource managers."""

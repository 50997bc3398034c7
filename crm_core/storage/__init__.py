"""Where state lives: the ports on Azure Storage, their in-memory twin and the layout of what is stored."""

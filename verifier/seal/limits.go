package seal

// maxExecutable bounds the memory that a runtime's program may take; llama-server has 16 MB, with GPU code some hundred.
const maxExecutable = 4 << 30 // bytes

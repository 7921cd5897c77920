"""The guidance engine on the host: attention maps, gradients, sampler steps, memory."""

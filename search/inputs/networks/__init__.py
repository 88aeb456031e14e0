"""Networks as a person names them: files, modules, folders of Hugging Face models."""

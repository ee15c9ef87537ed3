"""Pictures and questions: what an encoder sees and what a language model is asked."""
